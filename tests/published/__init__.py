"""The objectives of published papers, each as a spec, and what each must mean on a batch worked out by hand."""
