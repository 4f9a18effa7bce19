"""The DICOM front door."""
