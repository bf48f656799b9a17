"""Unireel as a service: an HTTP API, jobs, safe intake of media, and a web page."""
