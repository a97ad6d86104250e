"""Raw logs → interactions → nodes and graph → reach → pairs: the stages before training."""
