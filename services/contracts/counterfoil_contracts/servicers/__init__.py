"""The RPC families of contracts, one file each."""
