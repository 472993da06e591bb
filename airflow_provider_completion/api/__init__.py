"""The completion app's API as data: values, bytes to events to a completion, and what each failure means. No I/O."""
