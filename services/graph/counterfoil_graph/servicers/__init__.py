"""One file per RPC family: translate, open the transaction, delegate, translate back."""
