"""Findings from masks: measurements of a scan's nodules, follow-up of two scans, size categories, documents."""
