"""What may stand between the engine and the processor: filters, and the chain that asks them."""
