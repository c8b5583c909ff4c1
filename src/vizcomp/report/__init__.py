"""Records and evaluations as JSON, CSV and one HTML page: formats figures, computes none."""
