"""Files that come with the platform."""
