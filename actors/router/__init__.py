"""The router actor: contract net, decision record, strategies."""
