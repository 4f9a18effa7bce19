"""Burner drivers: no SQL, no DICOM network."""
