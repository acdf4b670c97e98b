"""`responder token`: mint tokens, look at them, change what they may do, give them new secrets, revoke them."""
