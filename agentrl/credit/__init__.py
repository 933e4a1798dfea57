"""Credit for turns: reward, keep and advantage parts over columns; numpy only, no state, no model."""
