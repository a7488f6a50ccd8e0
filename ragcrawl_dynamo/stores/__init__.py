"""One entity's access patterns each; the backend composes them."""
