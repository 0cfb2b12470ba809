"""The static IR: types, hash-consed nodes, graphs, the operator table, text, verifier and reference interpreter."""
