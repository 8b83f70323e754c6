"""Two ways to run a trial on Ray, over one training loop: `in_trial` and `ray_train`."""
