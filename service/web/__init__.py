"""The operator's page: HTML for people, made on the server from the same facts as the API's documents."""
