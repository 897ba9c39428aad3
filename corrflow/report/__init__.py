"""Reports of evaluations: a text table for the terminal, and a self-contained HTML page with
tables, curves and overlays."""

from corrflow.report.page import write_report
from corrflow.report.runs_page import RunSummary, write_runs_page
from corrflow.report.seeds import average_seeds
from corrflow.report.text import text_table

__all__ = ["RunSummary", "average_seeds", "text_table", "write_report", "write_runs_page"]
