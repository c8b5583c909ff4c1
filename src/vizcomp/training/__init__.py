"""Training: `depth` the depth network, `classifier` the classifiers, `codec` the recurrent codec;
`loop` is what they share."""
