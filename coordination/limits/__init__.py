"""Global limits: shared budgets of providers that hold across all processes, fair between tenants."""
