"""Models: series, forecasts, versions, champions, replay."""
