"""What a run found and did, for people (`terminal`), for programs (`data`) and as a graph (`graph_file`)."""
