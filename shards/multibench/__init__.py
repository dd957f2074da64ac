"""Files of MultiBench, the benchmark whose data sets CoMM and FactorCL are measured on, become shards."""
