"""Loss functions of tensors; `seraena` also holds the discriminator that its loss comes from."""
