"""The one page that the gateway writes itself: a sign-in link that does not work."""

from __future__ import annotations

POLICY = (
    "default-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; "
    "style-src 'self' 'unsafe-inline'; "  # plotly writes style elements and attributes into its charts
    "img-src 'self' data: blob:"  # plotly renders a chart to be saved as an image through these
)
"""The Content-Security-Policy of the console: nothing from elsewhere, no script but the files served."""

LINK_REFUSED = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in to Counterfoil</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}
code{background:#8882;padding:.1em .35em;border-radius:.25em}</style>
</head>
<body>
<h1>This sign-in link does not work any more</h1>
<p>A link works once, and for ten minutes. Get another one:</p>
<ul>
<li>on the machine that runs Counterfoil, <code>counterfoil console</code> prints one;</li>
<li>with an API key, <code>POST /console/sign-in-links</code> answers one.</li>
</ul>
</body>
</html>
"""
