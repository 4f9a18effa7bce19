"""DICOMweb (PS3.18) under ``/dicomweb``: STOW-RS to receive, QIDO-RS to search, WADO-RS to retrieve what is online."""
