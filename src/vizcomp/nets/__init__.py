"""Networks as torch modules, and files of weights of classifiers."""
