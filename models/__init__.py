"""Networks, and everything that trains and measures them. Knows torch; knows no Prefect, no HTTP and no catalogue.

Start at ``recipes.py`` (what can be trained), then ``loop.py`` (how), then ``fit.py`` (the command that does it).
"""
