"""What both demos do alike: load, measure, ask a second person, and say so."""
