module mstar.test/kit

go 1.26
