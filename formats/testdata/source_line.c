extern int missing(int);
int counter = 3;
static int hidden[4];

int first(int x)
{
    int y = missing(x) + counter;
    return y + hidden[x & 3];
}

int second(int x)
{
    if (x > 2)
        return first(x);
    hidden[0] = x;
    return missing(2);
}
