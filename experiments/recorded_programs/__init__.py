"""How the workloads in jaxswap/workload/recorded were recorded: inputs and commands, to make them again."""
