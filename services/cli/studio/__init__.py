"""The connector of Label Studio: tasks go out to its server, annotations come back, deletions too."""
