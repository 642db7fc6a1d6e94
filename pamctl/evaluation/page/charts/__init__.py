"""The figures of the page, one family a file: SVG that takes its colours from the style sheet."""
