"""The thin Flower app: two modules that name fedcert's apps; all logic is in the library."""
