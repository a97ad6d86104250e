"""Graph and pairs → checkpoint → metrics, embeddings and recommendations: the training stage and what follows."""
