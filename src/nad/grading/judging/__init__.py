"""What runs inside the sandbox. sandbox.py sends these files' text to a bare interpreter (`nad` is not there), in the
order of sandbox.INSIDE; so they import the standard library and each other, and nothing else.
"""
