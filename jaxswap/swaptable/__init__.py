"""Tables of swap slots and bulk kernels over millions of them."""
