"""The results of a run, for people (`terminal`), for programs (`data`) and as a graph (`graph_file`)."""
