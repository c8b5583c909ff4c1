"""Many inputs: engines, the loop, the journal, and what each verb does with one input."""
