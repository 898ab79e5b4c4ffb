"""Language models: what an engine promises (base) and llama.cpp in process (local) or a server's (remote)."""
