"""The console: pages for people, and the sessions that let a browser call the REST door in somebody's name."""
