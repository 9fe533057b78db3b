//! Enter the user namespace; run one process in fresh namespaces.
