"""The report as one page of HTML that needs nothing else: no network, no fonts, no other file."""

from pamctl.evaluation.page.page import page_of as page_of
