"""Pure DICOM-media rules: no SQL, no sockets, no threads."""
