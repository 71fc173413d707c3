module crony

go 1.19
