"""The one page that the gateway writes itself: a sign-in link that does not work."""

from __future__ import annotations

POLICY = (
    "default-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""The Content-Security-Policy of the console: nothing from elsewhere, no script or style but the files served.

`index.html` says how plotly is kept from writing styles of its own.
"""

LINK_REFUSED = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in to Counterfoil</title>
<link rel="stylesheet" href="/console/css/theme.css">
<link rel="stylesheet" href="/console/css/layout.css">
<link rel="stylesheet" href="/console/css/parts.css">
<link rel="stylesheet" href="/console/css/pages.css">
</head>
<body>
<div class="door"><div role="main">
<img src="/console/icons/mark.svg" alt="">
<h1>This sign-in link does not work any more</h1>
<p>A link works once, and for ten minutes. Get another one on the machine that runs Counterfoil:</p>
<pre class="command">counterfoil console</pre>
<p class="faint">With an API key, <code>POST /console/sign-in-links</code> answers one, too.</p>
</div></div>
</body>
</html>
"""
