"""A run as one page: `report.html`, which needs no network and runs nothing that a trajectory says."""

from agentrl.run.report.data import ReportData, read_run
from agentrl.run.report.page import render, write_report

__all__ = ["ReportData", "read_run", "render", "write_report"]
