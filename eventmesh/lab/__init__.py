"""The laboratory: audits, faults, measurements and reports of any mesh. Knows no application."""
