"""From vectors and evidence to ranked items: what evaluation, export and the answers to people score with."""
